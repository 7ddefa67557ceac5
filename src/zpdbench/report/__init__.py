"""What people read: tables on the terminal, figures, the report."""
