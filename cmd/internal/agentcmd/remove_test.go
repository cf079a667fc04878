package agentcmd

import (
	"strings"
	"testing"

	"github.com/creack/pty"

	"deploytools/cmd/internal/cli"
)

func TestRemovalIsConfirmedByTheName(t *testing.T) {
	for answer, want := range map[string]bool{"web\n": true, " web \n": true, "yes\n": false, "\n": false, "api\n": false} {
		person, tty, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := person.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		var told strings.Builder
		o := &cli.IO{Stdin: tty, Stderr: &told, Env: func(string) string { return "" }}
		err = new(removeOp).confirm(o, removal{Name: "web", Root: "roots/1", Script: "./stop.sh", Goes: []string{"/x/current"}})
		if (err == nil) != want {
			t.Errorf("answer %q: %v, want it to go on: %t", answer, err, want)
		}
		for _, text := range []string{"./stop.sh, on roots/1", "/x/current", "Type web to remove it: "} {
			if !strings.Contains(told.String(), text) {
				t.Errorf("the question does not have %q:\n%s", text, told.String())
			}
		}
		person.Close()
		tty.Close()
	}
	o := &cli.IO{Stdin: strings.NewReader("web\n"), Env: func(string) string { return "" }}
	if (&removeOp{}).confirm(o, removal{Name: "web"}) == nil {
		t.Error("taken from what is no terminal")
	}
}
