package verify

import (
	"testing"

	"deploytools/verify/spec"
)

func TestEveryPlaceholderThatIsTakenIsReplaced(t *testing.T) {
	v := Vars{NewRoot: "1", NewID: "2", OldID: "3", Name: "4", Revision: "5"}
	for _, text := range []string{"{newroot}", "{newid}", "{oldid}", "{name}", "{revision}"} {
		c := spec.Check{Type: spec.HTTP, URL: "http://h/", JSON: "/id", Equals: text}
		if err := c.Validate(spec.FromHost); err != nil || len(v.expand(text)) != 1 {
			t.Errorf("%s: %v, becomes %q", text, err, v.expand(text))
		}
	}
}
