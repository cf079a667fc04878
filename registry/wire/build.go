package wire

import "strconv"

// FormatVersion numbers the documents of this package as a whole. It grows when
// a reader of the old ones could misunderstand the new ones, which fields that
// are only added never cause.
const FormatVersion = 1

// Build says what a program was built from.
type Build struct {
	Version string `json:"version"`          // the tag, or "(devel)"
	Commit  string `json:"commit,omitempty"` // "" when it was built outside a checkout
	Time    string `json:"time,omitempty"`   // of the commit, RFC 3339
	Dirty   bool   `json:"dirty"`            // there were changes besides the commit
	Go      string `json:"go"`
	Format  int    `json:"wire_format"` // FormatVersion
}

// String returns the build in one line.
func (b Build) String() string {
	s := b.Version
	if b.Commit != "" {
		s += ", commit " + b.Commit
		if b.Dirty {
			s += " with changes"
		}
	}
	if b.Time != "" {
		s += " of " + b.Time
	}
	return s + ", " + b.Go + ", wire format " + strconv.Itoa(b.Format)
}
