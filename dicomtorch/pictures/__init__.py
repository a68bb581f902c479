"""Arrays and tables to figures and HTML."""
