package agentcmd

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"deploytools/agent"
	"deploytools/registry/console"
)

func TestTimeBetweenPolls(t *testing.T) {
	for poll, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "1ms": time.Millisecond,
		"-1s": 15 * time.Second, // as in the original tool set
		"0":   0,                // refused
	} {
		var s settings
		fs := pflag.NewFlagSet("deploy-agent", pflag.ContinueOnError)
		s.flags(fs)
		if err := console.ParseFlags(fs, []string{"-name", "web", "-poll", poll}, false); err != nil {
			t.Fatal(err)
		}
		o, err := s.options()
		if refused := err != nil; refused != (want == 0) || !refused && o.Poll.Interval != want {
			t.Errorf("-poll %s: %v, %v, want %v", poll, o.Poll.Interval, err, want)
		}
	}
}

func TestHookUserThatIsUnknownEndsTheStart(t *testing.T) {
	for user, want := range map[string]string{
		"no-such-user":      `user "no-such-user": not in /etc/passwd`,
		"root:no-such-team": `group "no-such-team": not in /etc/group`,
		"root":              "",
	} {
		var s settings
		fs := pflag.NewFlagSet("deploy-agent", pflag.ContinueOnError)
		s.flags(fs)
		if err := console.ParseFlags(fs, []string{"-name", "web", "-hook-user", user}, false); err != nil {
			t.Fatal(err)
		}
		o, err := s.options()
		if os.Geteuid() != 0 {
			want = "-hook-user needs an agent that runs as root"
		}
		if want == "" && (err != nil || o.Hook.User.Name != "root") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("-hook-user %s: %+v, %v, want %q", user, o.Hook.User, err, want)
		}
	}
}

func TestLimitsOfSpace(t *testing.T) {
	for _, test := range []struct {
		words []string
		want  agent.Keep
		ok    bool
	}{
		{nil, agent.Keep{Evidence: 20, Roots: 3}, true},
		{[]string{"-max-bytes", "20GiB", "-min-free", "10%"}, agent.Keep{Evidence: 20, Roots: 3, MaxBytes: 20 << 30, MinFree: agent.Room{Percent: 10}}, true},
		{[]string{"-cleanold", "-min-free", "2G"}, agent.Keep{Evidence: 20, Roots: 1, MinFree: agent.Room{Bytes: 2 << 30}}, true},
		{[]string{"-max-bytes", "10%"}, agent.Keep{}, false},
		{[]string{"-min-free", "much"}, agent.Keep{}, false},
	} {
		var s settings
		fs := pflag.NewFlagSet("deploy-agent", pflag.ContinueOnError)
		s.flags(fs)
		if err := console.ParseFlags(fs, append(test.words, "-name", "web"), false); err != nil {
			t.Fatal(err)
		}
		if o, err := s.options(); (err == nil) != test.ok || test.ok && o.Keep != test.want {
			t.Errorf("%q: %+v, %v, want %+v", test.words, o.Keep, err, test.want)
		}
	}
}
