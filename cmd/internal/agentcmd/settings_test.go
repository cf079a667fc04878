package agentcmd

import (
	"testing"
	"time"

	"github.com/spf13/pflag"

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
