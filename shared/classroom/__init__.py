"""What makes it a course: downloads, figures, widgets, checks, the command line."""
