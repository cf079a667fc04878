package cli

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/pflag"

	"deploytools/registry/console"
)

// Check returns what is wrong with the tables of the program: names used twice,
// texts that are missing, flags that could be read in two ways, exit statuses
// without a meaning. It is meant for tests.
func (p *Program) Check() error {
	errs := []error{p.page().Check(), console.CheckFlags(p.flagSet())}
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
		errs = append(errs, p.commandPage(c).Check())
		if err := console.CheckFlags(newFlagSet(c.Name, c.New().Flags)); err != nil {
			errs = append(errs, fmt.Errorf("command %s: %w", c.Name, err))
		}
	}
	return errors.Join(errs...)
}
