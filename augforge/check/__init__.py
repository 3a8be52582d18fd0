"""`augforge check`: an audit of a folder or of two - copies, blanks, broken files, suspicious labels - with reasons."""
