"""What stands around the chapters: the press, figure helpers, exercise checks, pages and recorded runs."""
