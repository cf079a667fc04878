// Package cmd_test holds the tests over all programs: whole command lines, the
// arrows between our packages, and the documents that are made from the code.
package cmd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"deploytools/cmd/internal/agentcmd"
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/ctlcmd"
	"deploytools/cmd/internal/registrycmd"
)

// TestMain makes this test every program of ours, when a script calls it by the
// program's name. Supervisors of hooks are such calls too.
func TestMain(m *testing.M) {
	testscript.Main(equipped{m}, map[string]func(){
		"deployctl":       func() { cli.Exit(ctlcmd.Main) },
		"deploy-registry": func() { cli.Exit(registrycmd.Main) },
		"deploy-agent":    func() { cli.Exit(mortal(agentcmd.Main)) },
		"httpsd":          httpsd,
		"managerctl":      managerctl,
		"unitd":           unitd,
		"applyset":        applyset,
		"standin":         standIn,
		"socketd":         socketd,
	})
}

// equipped runs tests that find keys, and OpenSSH's clients without the
// settings of whoever runs the tests.
type equipped struct{ m *testing.M }

func (e equipped) Run() int {
	remove, err := equip()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error: cannot prepare the tests:", err)
		return 1
	}
	defer remove()
	return e.m.Run()
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return os.Geteuid() == 0 || os.Getenv("CI") != "", nil // there it has to be
		},
		Setup: func(env *testscript.Env) error {
			s, err := newSite(env.WorkDir)
			if err != nil {
				return err
			}
			hooks, _ := filepath.Glob(filepath.Join(env.WorkDir, "*.sh")) // no error: the pattern is sound
			for _, hook := range hooks {
				if err := os.Chmod(hook, 0o755); err != nil {
					return err
				}
			}
			repo, err := filepath.Abs("..")
			if err != nil {
				return err
			}
			env.Vars = append(env.Vars, s.env()...)
			env.Setenv("REPO", repo)
			env.Values[siteKey{}] = s
			env.Defer(s.close)
			return nil
		},
		Cmds: scriptCommands,
	})
}
