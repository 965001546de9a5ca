"""The service: HTTP for programs, a web page for people."""
