"""Tasks for a worker of celery: one takes three seconds."""

import os
import time

from celery import Celery

app = Celery("tasks", broker=os.environ["BROKER"])


def note(event):
    with open(os.path.join(os.environ["NOTES"], event), "a") as notes:
        notes.write(event + "\n")


@app.task
def slow():
    note("begun")
    time.sleep(3)
    note("done")
