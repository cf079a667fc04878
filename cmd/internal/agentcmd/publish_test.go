package agentcmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"deploytools/cmd/internal/cli"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

func TestPublishFlags(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		words []string
		want  string // of the error; "": there is none
	}{
		{[]string{"-publish", "a=/etc/a,mode=0640\n# no comment"}, `-publish "# no comment"`},
		{[]string{"-publish", "a=/etc/a\nb=/etc/b,group=www-data/nginx", "-publish-allow", "/etc\n/srv"}, ""},
		{[]string{"-publish", "a=/etc/a", "-publish", "b=/etc/a"}, "-publish: two files cannot be published to /etc/a"},
		{[]string{"-publish", "a=etc/a"}, `-publish "a=etc/a": "etc/a": should be the absolute path`},
		{[]string{"-publish-allow", "etc"}, `-publish: prefix "etc": should be an absolute path`},
		{[]string{"-name", "api=api", "-publish", "a=" + dir + "/a"}, "configurations web and api cannot both publish to " + dir + "/a"},
	} {
		var s settings
		fs := pflag.NewFlagSet("deploy-agent", pflag.ContinueOnError)
		s.flags(fs)
		if err := console.ParseFlags(fs, append([]string{"-name", "web=web"}, row.words...), false); err != nil {
			t.Fatal(err)
		}
		all, bad, err := s.configurations()
		if err == nil && len(bad) > 0 {
			err = bad[0].err
		}
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || cli.StatusOf(err) != wire.Usage) {
			t.Errorf("%q: %v, %v, want %q", row.words, all, err, row.want)
		}
		if row.want == "" && (len(all[0].Publish.Files) != 2 || len(all[0].Publish.Allow) != 2) {
			t.Errorf("%q: %+v", row.words, all[0].Publish)
		}
	}
}
