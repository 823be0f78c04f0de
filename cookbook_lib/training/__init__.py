"""Training: tasks that tell architectures apart, and the loop."""
