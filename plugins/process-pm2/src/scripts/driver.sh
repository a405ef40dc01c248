# Runs on the instance, once a call: sh -c DRIVER pcoder-pm2 VERB [ARGUMENT...]. It needs POSIX and coreutils; what else
# it uses it can do without. How it ends says what went wrong; the numbers are in `driver.rs`.
if [ "$1" = start ]; then
    # The process gets what the instance gives every command. PM2 does not see it. First of all: each assignment below
    # would be in it where a variable of that name was exported.
    [ -f "$2/environment" ] || exit 50
    (umask 077 && export -p >"$2/base") || exit 46
fi
verb=$1
shift
limit=30 run='' min_uptime=''
pm2=$(command -v pm2) || exit 41
case $pm2 in /*) ;; *) exit 41 ;; esac
home=${PM2_HOME:-$HOME/.pm2}
newline='
'
case $home in *"$newline"*) exit 42 ;; /*) ;; *) exit 42 ;; esac
# PM2's sockets are in there. Longer, their names are cut in silence, or every command hangs for ever.
[ "$(printf %s "$home" | wc -c)" -le 98 ] || exit 42
runs=$home/pcoder/run

# Runs a command for at most $limit seconds: one of two first commands of PM2's waits for ever.
bounded() {
    if command -v timeout >/dev/null; then
        timeout -s KILL "$limit" "$@"
        return
    fi
    "$@" &
    bounded_pid=$!
    (sleep "$limit"; kill -s KILL "$bounded_pid") >/dev/null 2>&1 9>&- &
    bounded_dog=$!
    wait "$bounded_pid"
    set -- "$?"
    kill "$bounded_dog" 2>/dev/null
    return "$1"
}

# PM2 shows its client's environment to everyone who may list processes, so that it gets next to none. It lays that
# environment over its settings too, which is the one way to say `min_uptime` without a file.
call() {
    bounded env -i "PATH=$PATH" "HOME=$HOME" "PM2_HOME=$home" "LANG=${LANG:-C.UTF-8}" ${USER:+"USER=$USER"} \
        ${LOGNAME:+"LOGNAME=$LOGNAME"} ${TMPDIR:+"TMPDIR=$TMPDIR"} ${run:+"PCODER_PM2_RUN=$run"} \
        ${min_uptime:+"min_uptime=$min_uptime"} "$pm2" "$@" </dev/null 9>&-
}

failed() {
    case $1 in 124 | 137) exit 44 ;; *) exit 45 ;; esac
}

try_lock() {
    if command -v flock >/dev/null; then
        flock -n 9
        return
    fi
    held=$home/pcoder/lock.d
    if mkdir "$held" 2>/dev/null; then
        trap 'rm -rf "$held"' EXIT
        echo "$$" >"$held/pid"
        return
    fi
    holder=$(cat "$held/pid" 2>/dev/null)
    if [ -n "$holder" ]; then
        ! kill -s 0 "$holder" 2>/dev/null || return 1
    else
        # Whoever made it ended before it said who it is, or is just about to.
        [ -n "$(find "$held" -prune -mmin +1 2>/dev/null)" ] || return 1
    fi
    # Two may find that the holder is gone, and the second one takes away what the first one made since.
    mv "$held" "$held.$$" 2>/dev/null || return 1
    if [ "$(cat "$held.$$/pid" 2>/dev/null)" = "$holder" ]; then
        rm -rf "$held.$$"
    else
        mv "$held.$$" "$held"
    fi
    return 1
}

lock() {
    (umask 077 && mkdir -p "$runs") || exit 46
    exec 9>"$home/pcoder/lock" || exit 46
    tries=0
    until try_lock; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || exit 43
        sleep 0.1 2>/dev/null || sleep 1
    done
}

# What PM2 has in its list, and then what each run of ours left: its exit code, whether it was told to stop.
listing() {
    json=$(call jlist -s) || failed "$?"
}

show() {
    printf '%s\n' "$json"
    cd "$runs" 2>/dev/null || return 0
    for file in *.*/exit.* *.*/last.* *.*/stopped.*; do
        [ -f "$file" ] || continue
        code=''
        IFS= read -r code <"$file"
        printf 'pcoder %s %s\n' "$file" "$code"
    done
}

processes() {
    cat /proc/[0-9]*/stat 2>/dev/null
}

# tree PID DAEMON [START]: a process with all below it, as words: `P:ID:START` is a process, `S:ID` a session that one of
# them leads. It is a child of the daemon's or has that start time, or another one has the number now. PM2 needs `ps` to
# find them, which small images lack, and misses what they start while it ends them.
tree() {
    processes | awk -v root="$1" -v daemon="$2" -v born="${3-}" '
        { pid = $1; sub(/^.*\) /, ""); split($0, f, " "); parent[pid] = f[2]; session[pid] = f[4]; start[pid] = f[20] }
        END {
            if (root == "" || !(root in start) || (born == "" ? parent[root] != daemon : start[root] != born)) exit
            found[root] = 1
            do {
                grown = 0
                for (pid in parent) if (!(pid in found) && (parent[pid] in found)) { found[pid] = 1; grown = 1 }
            } while (grown)
            for (pid in found) printf "P:%s:%s %s", pid, start[pid], session[pid] == pid ? "S:" pid " " : ""
        }'
}

# Which of them are left.
left() {
    processes | awk -v known="$1" '
        BEGIN { n = split(known, f, " "); for (i = 1; i <= n; i++) want[f[i]] = 1 }
        { pid = $1; sub(/^.*\) /, ""); split($0, f, " ") }
        f[1] != "Z" && (("P:" pid ":" f[20]) in want || ("S:" f[4]) in want) { print pid }'
}

# Ends what is left of them: politely, and after two seconds by force.
sweep() {
    [ -n "$1" ] || return 0
    for signal in TERM KILL; do
        tries=0
        while pids=$(left "$1") && [ -n "$pids" ]; do
            # Asked once. By force again and again: they may be starting others.
            # shellcheck disable=SC2086
            if [ "$signal" = KILL ] || [ "$tries" -eq 0 ]; then kill -s "$signal" $pids 2>/dev/null; fi
            tries=$((tries + 1))
            [ "$tries" -lt 20 ] || break
            sleep 0.1 2>/dev/null || sleep 1
        done
        [ -n "$pids" ] || return 0
    done
    exit 49
}

# Ends what a daemon that died left running under a name.
orphans() {
    for file in "$runs/$1".*/pid.*; do
        [ -f "$file" ] || continue
        pid='' born=''
        read -r pid born <"$file"
        [ -z "$born" ] || sweep "$(tree "$pid" "" "$born")"
    done
}

# end stop|delete [ID PID-FILE RUN]...
end() {
    action=$1
    shift
    ids='' trees='' marks=''
    while [ "$#" -ge 3 ]; do
        ids="$ids $1"
        trees="$trees$(tree "$(cat "$2" 2>/dev/null)" "$(cat "$home/pm2.pid" 2>/dev/null)")"
        [ -z "$3" ] || marks="$marks $3/stopped.$1"
        shift 3
    done
    [ -n "$ids" ] || return 0
    # shellcheck disable=SC2086
    call "$action" -s $ids >&2 || failed "$?"
    sweep "$trees"
    for mark in $marks; do
        [ ! -d "$runs/${mark%/*}" ] || : >"$runs/$mark"
    done
}

case $verb in
prepare)
    (umask 077 && mkdir -p "$runs/$1") || exit 46
    printf '%s\n' "$runs/$1"
    ;;
start)
    # FOLDER NAME MIN-UPTIME LINE MODE SUPERVISE ENTER [FLAG...]
    folder=$1 name=$2 line=$4 mode=$5 supervise=$6 enter=$7
    run=${folder##*/} min_uptime=$3
    shift 7
    lock
    listing
    case $json in *']') ;; *) rm -rf "$folder"; exit 47 ;; esac
    case $json in *"\"name\":\"$name\""*) exit 48 ;; esac
    [ -f "$folder/environment" ] || exit 50
    orphans "$name"
    for other in "$runs/$name".*; do
        [ "$other" = "$folder" ] || rm -rf "$other"
    done
    call start "$(command -v sh)" --interpreter none --name "$name" --no-vizion --merge-logs \
        --output "$folder/out.log" --error "$folder/err.log" "$@" -s -- \
        -c "$supervise" sh "$folder" "$line" "$enter" "$mode" >&2 || failed "$?"
    json=$(call jlist -s) || exit 47
    show
    ;;
list)
    # Without a daemon nothing runs, and asking would start one.
    [ -S "$home/rpc.sock" ] || { echo '[]'; exit 0; }
    lock
    listing
    show
    ;;
stop)
    lock
    end stop "$@"
    ;;
delete)
    # NAME [ID PID-FILE RUN]...
    name=$1
    shift
    [ -d "$home" ] || exit 0
    lock
    end delete "$@"
    [ -z "$name" ] || { orphans "$name" && rm -rf "$runs/$name".*; }
    ;;
*) exit 51 ;;
esac
