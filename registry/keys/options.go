package keys

import (
	"fmt"
	"strings"
)

// knownOptions are the options that are honoured. restrict forbids forwarding
// and the like, of which there is none here.
var knownOptions = map[string]bool{"restrict": true}

// checkOptions says which of the options of a line, separated by commas, is not
// known. Names are case-insensitive, as in sshd(8).
func checkOptions(list string) error {
	for list != "" {
		end := endOf(list, ",")
		option := list[:end]
		list = strings.TrimPrefix(list[end:], ",")
		name, _, valued := strings.Cut(option, "=")
		if !knownOptions[strings.ToLower(name)] || valued {
			return fmt.Errorf("option %q is not supported here, so the key is refused", printable(option))
		}
	}
	return nil
}
