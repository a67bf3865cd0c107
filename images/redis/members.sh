# What the two entry scripts share: who the members are, and what each of them says. Read by `.`, POSIX sh.
#
# A member is one pod, NAME-redis-N, with a server and a Sentinel that share /data. Members are known from the environment alone,
# so nothing has to be discovered through a primary that may be down.

: "${POD_NAME:?is not set}" "${REDIS_PASSWORD:?is not set}"
master_name=tanka
data=/data
sentinel_conf=$data/sentinel.conf
ordinal=${POD_NAME##*-}
export REDISCLI_AUTH="$REDIS_PASSWORD"
umask 077
# The first process of a container ignores signals that it has no handler for, and would be waited for until it is killed.
trap 'exit 143' TERM INT

say() { echo "${0##*/}: $*" >&2; }
fail() { say "$*"; exit 1; }
now() { date +%s; }

# Prints one line `host port sentinel-port` for each member, in the order of their ordinals.
members() {
  if [ -n "${REDIS_PEERS:-}" ]; then
    echo "$REDIS_PEERS" | tr -s ' ' '\n' | sed '/^$/d; s/:/ /g'
    return
  fi
  : "${REDIS_STATEFULSET:?is not set}" "${REDIS_SERVICE:?is not set}" "${REDIS_MEMBERS:?is not set}"
  i=0
  while [ "$i" -lt "$REDIS_MEMBERS" ]; do
    echo "$REDIS_STATEFULSET-$i.$REDIS_SERVICE ${REDIS_PORT:-6379} ${SENTINEL_PORT:-26379}"
    i=$((i + 1))
  done
}

member_list=$(members)
member_count=$(echo "$member_list" | wc -l)
majority=$((member_count / 2 + 1))
peers=$(echo "$member_list" | sed "$((ordinal + 1))d")
# A pod beyond the list (a member that is being scaled away) has nothing to do here.
me=$(echo "$member_list" | sed -n "$((ordinal + 1))p")
[ -n "$me" ] || fail "$POD_NAME is not one of the $member_count members"
my_host=${me%% *}
my_sentinel_port=${me##* }
my_port=${me#* }
my_port=${my_port%% *}

# ask HOST PORT [ARGUMENT...]: one command, or several on standard input; silent and bounded when nobody answers.
ask() {
  ask_host=$1 ask_port=$2
  shift 2
  timeout 2 redis-cli -h "$ask_host" -p "$ask_port" -t 1 --no-auth-warning "$@" 2>/dev/null
}

# Prints `epoch host port` as one running Sentinel sees the primary, or nothing. The epoch grows with every failover.
sentinel_opinion() {
  printf 'SENTINEL GET-MASTER-ADDR-BY-NAME %s\nSENTINEL MASTER %s\n' "$master_name" "$master_name" | ask "$1" "$2" |
    awk 'NR == 1 { host = $0 } NR == 2 { port = $0 } key == "config-epoch" { epoch = $0 } { key = $0 }
         END { if (epoch ~ /^[0-9]+$/ && port ~ /^[0-9]+$/) print epoch, host, port }'
}

# The same, as this member's own Sentinel wrote it down before it last ended.
remembered_opinion() {
  [ -s "$sentinel_conf" ] || return 0
  awk -v name="$master_name" '
    { gsub(/"/, "") }
    $1 == "sentinel" && $2 == "monitor" && $3 == name { host = $4; port = $5 }
    $1 == "sentinel" && $2 == "config-epoch" && $3 == name { epoch = $4 }
    END { if (host != "") print epoch + 0, host, port }' "$sentinel_conf"
}

peer_opinions() {
  echo "$peers" | while read -r host _ sentinel_port; do
    [ -z "$host" ] || sentinel_opinion "$host" "$sentinel_port"
  done
}

# All opinions, one a line: our own Sentinel's memory, and those of the peers' Sentinels.
opinions() {
  remembered_opinion
  peer_opinions
}

# Whether a Sentinel answers that it knows no primary at all. Its memory is in the volume that the server's data is in, so this
# member has never had any.
sentinel_is_blank() {
  printf 'PING\nSENTINEL MASTERS\n' | ask "$1" "$2" |
    awk 'NR == 1 { alive = $0 == "PONG" } NR > 1 && $0 != "" { knows = 1 } END { exit !(alive && !knows) }'
}

# Of several opinions the newest counts: `host port` of the line with the highest epoch.
newest() { sort -k1,1nr -k2 | awk 'NR == 1 { print $2, $3 }'; }

# Prints `role primary-host primary-port synced data` of a running server, or nothing. `synced` is yes when this process has been
# in step with its primary at some time (a link that is up, or one that was lost, as opposed to one that never was);
# `data` is yes when it holds keys, or is still loading them.
server_state() {
  printf 'INFO\n' | ask "$1" "$2" | tr -d '\r' | awk -F: '
    { value[$1] = $2 }
    /^db[0-9]+:keys=/ { data = 1 }
    END {
      if (!("role" in value)) exit
      synced = value["role"] == "slave" && value["master_sync_in_progress"] == 0 &&
        (value["master_link_status"] == "up" || value["master_link_down_since_seconds"] >= 0)
      primary = value["role"] == "slave" ? value["master_host"] " " value["master_port"] : "- -"
      print value["role"], primary, (synced ? "yes" : "no"), (data || value["loading"] == 1 ? "yes" : "no")
    }'
}

# When no Sentinel knows anything: `host port` of the primary, as the running servers tell it. What a replica follows counts for
# more than what calls itself primary, because a server that nobody follows may be the one that was left behind.
primary_by_servers() {
  echo "$1" | while read -r host port _; do
    [ -n "$host" ] || continue
    state=$(server_state "$host" "$port")
    case $state in
      slave*) echo "1 $(echo "$state" | cut -d' ' -f2,3)" ;;
      master*) echo "2 $host $port" ;;
    esac
  done | sort -n | awk 'NR == 1 { print $2, $3 }'
}

# Has Sentinel promote a replica now. One that carries it out is enough.
request_failover() {
  echo "$peers" | while read -r host _ sentinel_port; do
    [ -n "$host" ] || continue
    answer=$(ask "$host" "$sentinel_port" SENTINEL FAILOVER "$master_name" || true)
    say "asked the Sentinel of $host for a failover: ${answer:-no answer}"
    case $answer in OK | *INPROG*) break ;; esac
  done
}

# A value for a configuration file, quoted.
quoted() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"; }
