"""Where files are: local disks and object stores behind one small protocol."""
