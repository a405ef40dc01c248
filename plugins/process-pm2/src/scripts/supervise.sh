# What PM2 runs: sh -c SUPERVISE sh FOLDER LINE ENTER MODE. It runs the line and writes down how it ended, because PM2
# reports 0 after a signal. Standard input is empty: PM2 leaves it open and silent, and agents wait for it.
exec </dev/null
code_file=$1/exit.$pm_id
[ ! -f "$code_file" ] || mv -f "$code_file" "$1/last.$pm_id"
rm -f "$1/stopped.$pm_id"
# Who this is, as pid and start time: should PM2 die, this is how it is found. The words are those of proc(5).
if read -r stat </proc/$$/stat; then
    # shellcheck disable=SC2086
    (set -- "$1" ${stat##*) } && echo "$$ ${21}" >"$1/pid.$pm_id")
fi 2>/dev/null
# Without PM2's variables and its channel, which Node programs would take for their parent's.
[ "$4" != direct ] || exec env -i "PATH=$PATH" sh -c "$3" sh "$1" "$2" 3<&-
# PM2 sends its signal to the whole tree; this one stays to see how the command takes it.
trap : HUP INT TERM
(exec env -i "PATH=$PATH" sh -c "$3" sh "$1" "$2") 3<&-
code=$?
echo "$code" >"$1/new.$pm_id" && mv -f "$1/new.$pm_id" "$code_file"
exit "$code"
