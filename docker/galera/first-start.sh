#!/bin/sh
# Runs in the MariaDB image while an empty volume is set up: makes the user that HAProxy's check signs in as, who has no
# password and may do nothing.
mariadb --user=root --password="$(cat "$MARIADB_ROOT_PASSWORD_FILE")" \
  --execute="CREATE USER IF NOT EXISTS haproxy@'%' WITH MAX_USER_CONNECTIONS 20"
