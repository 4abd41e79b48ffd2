"""What jobs and tasks are and what must become of them: values in, values out, no I/O at all."""
