# Becomes the command: sh -c ENTER sh FOLDER LINE.
# The file has each variable as a line `TOKEN NAME` and its value in the lines below; a last `TOKEN ` ends it. Nothing in
# a value is special, so that it does not matter what stands in the place of a secret's placeholder.
load_environment() {
    IFS= read -r _pcoder_token || return
    _pcoder_name=
    while IFS= read -r _pcoder_line; do
        case $_pcoder_line in
        "$_pcoder_token "*)
            [ -z "$_pcoder_name" ] || export "$_pcoder_name=$_pcoder_value"
            _pcoder_name=${_pcoder_line#"$_pcoder_token "}
            _pcoder_first=1
            ;;
        *)
            if [ -n "$_pcoder_first" ]; then
                _pcoder_value=$_pcoder_line
                _pcoder_first=
            else
                _pcoder_value="$_pcoder_value
$_pcoder_line"
            fi
            ;;
        esac
    done
}
. "$1/base"
eval "$2"
