"""The web page: try the defence on an image, read reports, see the leaderboard."""

from jernih.serve.page.layout import PageSettings, build_page, mount_page

__all__ = ["PageSettings", "build_page", "mount_page"]
