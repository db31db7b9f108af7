"""What is measured and logged: every metric declared once, log lines without texts or keys."""
