"""`python -m cookbook_lib` is `cookbook`."""

from cookbook_lib.cli import main

main()
