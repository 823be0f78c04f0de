"""The commands of `cookbook`, one file each; a signature is a command line."""
