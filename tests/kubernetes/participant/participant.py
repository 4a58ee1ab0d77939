"""A participant of an election of the Python client: it runs a command while it leads.

    participant.py URL NAMESPACE LEASE NAME SECONDS -- COMMAND...

SECONDS is the lease duration. This client never releases: after SIGTERM the command is stopped, and the Lease runs out. When it
leads no more, or its election has failed, the command is killed, and it campaigns again. The command dies with this process.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time

from kubernetes import client
from kubernetes.leaderelection import leaderelection
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

PR_SET_PDEATHSIG = 1
url, namespace, lease, name, seconds = sys.argv[1:6]
seconds, command = int(seconds), sys.argv[7:]
child = None


def start():
    global child
    prctl = ctypes.CDLL(None).prctl
    child = subprocess.Popen(command, preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    # The kernel sends that signal when this thread ends.
    child.wait()
    while True:
        time.sleep(60)


def stop(how):
    if child is not None:
        child.send_signal(how)
        child.wait()


def leave(*_):
    stop(signal.SIGTERM)
    os._exit(0)


logging.basicConfig(level=logging.INFO)
signal.signal(signal.SIGTERM, leave)
configuration = client.Configuration(host=url)
configuration.api_key["authorization"] = "Bearer " + os.environ.get("TOKEN", "")
configuration.retries = False
client.Configuration.set_default(configuration)
while True:
    lock = LeaseLock(lease, namespace, name)
    config = Config(lock, seconds, seconds * 2 / 3, max(1, seconds * 2 / 15), start, lambda: None)
    try:
        leaderelection.LeaderElection(config).run()
    except Exception as error:
        # A server that cannot be reached is no ApiException, and ends the election.
        logging.info("the election has failed: %s", error)
        time.sleep(1)
    logging.info("leads no more")
    stop(signal.SIGKILL)
    child = None
