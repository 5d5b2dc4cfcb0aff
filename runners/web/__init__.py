"""What the API, the pages and the admin share. Those three import nothing of each other."""
