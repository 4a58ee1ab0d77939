# shellcheck shell=bash
# The programs of tests/programs.rs: 13 MB. celery speaks to its broker by python3-redis.
need celery celery
need gunicorn gunicorn
need nginx nginx-light
/usr/bin/python3 -c 'import redis' 2>/dev/null || needs+=(python3-redis)
