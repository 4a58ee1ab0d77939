"""A service for gunicorn: /slow takes three seconds."""

import os
import time


def note(event):
    with open(os.path.join(os.environ["NOTES"], event), "a") as notes:
        notes.write(event + "\n")


note("loaded")


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        note("begun")
        time.sleep(3)
        note("done")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"answered by %d\n" % os.getpid()]
