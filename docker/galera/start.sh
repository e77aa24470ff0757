#!/bin/sh
# Starts node number $1 in the MariaDB image: the one that GALERA_FIRST names begins a cluster where there is none, the
# others join. A first node that comes back while others are there joins them like any other.
set -eu
number=$1
first=
if [ "$number" = "${GALERA_FIRST:-1}" ]; then
  first=--wsrep-new-cluster
  for other in 1 2 3; do
    [ "$other" = "$number" ] && continue
    # Whoever answers on the port of the group is of a cluster already.
    if timeout 2 bash -c "exec 3<>/dev/tcp/galera-$other/4567" 2>/dev/null; then first=; fi
  done
fi
password=$(cat "$MARIADB_ROOT_PASSWORD_FILE")
exec docker-entrypoint.sh mariadbd \
  --wsrep-node-name="galera-$number" --wsrep-node-address="galera-$number" --wsrep-sst-auth="root:$password" $first
