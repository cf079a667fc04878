package agentcmd

import (
	"path/filepath"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
)

// publishFlags are the flags about fixed paths.
func (s *settings) publishFlags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&s.publish, "publish", nil, "`file` of the root that lies at a fixed path as well while the root is live, such as etc/site.pem=/etc/nginx/site.pem,mode=0640,group=www-data; may be repeated, one a line in the variable")
	fs.StringArrayVar(&s.publishAllow, "publish-allow", nil, "`directory` below which files are published and nowhere else, also those that the root itself names in .deploy/publish, which is not read without it; may be repeated, one a line in the variable")
}

// published turns them into what the machine takes.
func (s *settings) published() (agent.Publish, error) {
	p := agent.Publish{Allow: splitLines(s.publishAllow)}
	for _, text := range splitLines(s.publish) {
		m, err := agent.ParseMapping(text)
		if err != nil {
			return p, cli.Usage("-publish %q: %w", text, err)
		}
		p.Files = append(p.Files, m)
	}
	if err := p.Check(); err != nil {
		return p, cli.Usage("-publish: %w", err)
	}
	return p, nil
}

// publishApart refuses two configurations that publish to one path, and has the
// machine of each know of all.
func publishApart(all []agent.Options) error {
	taken := map[string]string{}
	var dirs []string
	for _, o := range all {
		dirs = append(dirs, o.Dir)
		for _, m := range o.Publish.Files {
			if other := taken[real(m.To)]; other != "" && other != o.Name {
				return cli.Usage("configurations %s and %s cannot both publish to %s", other, o.Name, m.To)
			}
			taken[real(m.To)] = o.Name
		}
	}
	for i := range all {
		all[i].Publish.Agents = dirs
	}
	return nil
}

// destination looks whether a file can be published to where it is to lie.
func (d *diagnosis) destination(name string, m agent.Mapping) {
	dir := filepath.Dir(m.To)
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		d.Fail(name, "make the directory, and let the agent's user write there: nothing is deployed until then", "-publish %s: %s: %v", m.To, dir, err)
		return
	}
	d.OK(name, "-publish %s", m.To)
}
