package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"deploytools/registry/console"
)

// Check returns what is wrong with the tables of the program: names used twice,
// texts that are missing, flags that could be read in two ways, exit statuses
// without a meaning. It is meant for tests.
func (p *Program) Check() error {
	errs := []error{checkTexts(p.page()), console.CheckFlags(p.flagSet())}
	seen := map[string]string{}
	p.flagSet().VisitAll(func(f *pflag.Flag) {
		for _, name := range variables(p.prefix(), f) {
			if other, ok := seen[name]; ok {
				errs = append(errs, fmt.Errorf("variable %s sets -%s and -%s", name, other, f.Name))
			}
			seen[name] = f.Name
		}
	})
	var names []string
	for _, c := range slices.Concat(p.Commands, p.builtins()) {
		if slices.Contains(names, c.Name) {
			errs = append(errs, fmt.Errorf("command %s: there are two", c.Name))
		}
		names = append(names, c.Name)
		errs = append(errs, checkTexts(p.commandPage(c)))
		if err := console.CheckFlags(newFlagSet(c.Name, c.New().Flags)); err != nil {
			errs = append(errs, fmt.Errorf("command %s: %w", c.Name, err))
		}
	}
	return errors.Join(errs...)
}

// checkTexts returns what is wrong with the texts of one page.
func checkTexts(pg page) error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(pg.name+": "+format, a...)) }
	if pg.short == "" || strings.HasSuffix(pg.short, ".") || strings.Contains(pg.short, "\n") {
		bad("%q: should be one line without a full stop", pg.short)
	}
	for _, f := range pg.flags {
		if f.usage == "" {
			bad("flag %s: has no usage", f.spelling)
		}
	}
	for _, s := range pg.statuses {
		if meaning(s) == "" {
			bad("exit status %s: has no meaning", s)
		}
	}
	for _, e := range pg.examples {
		if !strings.Contains(e, strings.Fields(pg.name)[0]) {
			bad("example %q: does not call the program", e)
		}
	}
	return errors.Join(errs...)
}
