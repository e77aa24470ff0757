#!/bin/sh
# prepare.sh mysql|sqlite SIZE PORT: brings the harness's data into a board of its own, once; as a team that comes from
# the first program would. The database is the one that MUNDAP_DATABASE_URL names.
set -eu
done="$MUNDAP_DATA_DIR/prepared"
if [ -e "$done" ]; then exit 0; fi
mkdir -p "$MUNDAP_DATA_DIR"
if [ "$1" = mysql ]; then
  mariadb -h127.0.0.1 -P"$3" -uqna -pqna -e "DROP DATABASE IF EXISTS mundap_$2; CREATE DATABASE mundap_$2"
fi
mundap import-fastapi "mysql://qna:qna@127.0.0.1:$3/peers_$2" > "$MUNDAP_DATA_DIR/import.txt"
if [ "$1" = mysql ]; then
  mariadb -h127.0.0.1 -P"$3" -uqna -pqna "mundap_$2" -e "ANALYZE TABLE qna, comment, users" > /dev/null
fi
touch "$done"
