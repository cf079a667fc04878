// Package cmd_test holds the tests over all programs: whole command lines, the
// arrows between our packages, and the documents that are made from the code.
package cmd_test

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/ctlcmd"
	"deploytools/cmd/internal/registrycmd"
)

// TestMain makes this test every program of ours, when a script calls it by the
// program's name.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"deployctl":       func() { cli.Exit(ctlcmd.Main) },
		"deploy-registry": func() { cli.Exit(registrycmd.Main) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Cmds:                scriptCommands,
	})
}
