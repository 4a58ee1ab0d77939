# One host for cron: its name is $1, and $2 its folder with crontab and mailer. The clock is in the environment of the last command.
set -eu
host=$1 folder=$2
shift 2
mount --make-rprivate /
hostname "$host"
mount -t proc proc /proc
mount -t tmpfs none /run
# The jobs of the machine itself are not for here.
mount -t tmpfs none /etc/cron.d
mount --bind /dev/null /etc/crontab
# Every program of the machine, and another mailer.
mkdir "$folder/programs"
mount --bind /usr/sbin "$folder/programs"
mount -t tmpfs none /usr/sbin
ln -s "$folder"/programs/* /usr/sbin/
rm -f /usr/sbin/sendmail
cp "$folder/mailer" /usr/sbin/sendmail
mount -t tmpfs none /var/spool/cron
mkdir -m 1730 /var/spool/cron/crontabs
install -m 600 -g crontab "$folder/crontab" /var/spool/cron/crontabs/root
exec env TZ=UTC "$@" cron -f -L 15
