package verify

import (
	"os"
	"strings"
	"time"
)

// Vars is what a check may refer to. Looking at OLDROOT, its root and
// identifier are the New ones here: New is what should be serving.
type Vars struct {
	NewRoot  string // directory; may be empty when no check needs it
	NewID    string
	OldID    string
	Name     string // of the configuration
	Revision string
	Switched time.Duration // when the switch came, on the clock of Uptime; 0: not, or long ago
}

// expand replaces the placeholders that spec.Check names; other text, braces
// included, stays as it is.
func (v Vars) expand(s string) string {
	return strings.NewReplacer("{newid}", v.NewID, "{oldid}", v.OldID, "{name}", v.Name,
		"{revision}", v.Revision, "{newroot}", v.NewRoot).Replace(s)
}

// environ is the whole environment of an exec check; the names are the hook's.
func (v Vars) environ() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"NEWROOT=" + v.NewRoot,
		"NEWID=" + v.NewID,
		"OLDID=" + v.OldID,
		"DEPLOY_NAME=" + v.Name,
		"DEPLOY_REVISION=" + v.Revision,
	}
}
