package cli

import (
	"strings"

	"github.com/spf13/pflag"
)

// Overlay sets the flags of fs for a part of what the program does. Both sets
// have the same flags; those of base are set already. What the command line said
// counts most, then variables as env has them for this part, then the rest of
// base. Flags of own are the whole program's: a variable for one is an error.
func Overlay(fs, base *pflag.FlagSet, prefix string, env func(string) (string, bool), own ...string) error {
	var err error
	take := func(f *pflag.Flag, wanted bool) {
		to := fs.Lookup(f.Name)
		if err == nil && wanted && f.Changed && !to.Changed {
			err = copyValue(to, f)
			if mark := f.Annotations[annotationSet]; mark != nil && err == nil { // fs may be a base, too
				err = fs.SetAnnotation(f.Name, annotationSet, mark)
			}
		}
	}
	base.VisitAll(func(f *pflag.Flag) { take(f, f.Annotations[annotationSet] == nil) })
	for _, name := range own {
		for _, v := range variables(prefix, base.Lookup(name)) {
			if value, _ := env(v); value != "" {
				return WithHint(Usage("variable %s: is for the whole program, not for a part of it", v),
					"the program takes it as the flag -"+name+", or from its environment, into which a unit's EnvironmentFile= puts a whole file, and a shell 'set -a; . FILE'")
			}
		}
	}
	if err == nil {
		err = fromEnv(fs, prefix, env)
	}
	base.VisitAll(func(f *pflag.Flag) { take(f, true) })
	return err
}

// copyValue sets a flag to what another of its kind has.
func copyValue(to, from *pflag.Flag) error {
	to.Changed = true
	if many, ok := from.Value.(pflag.SliceValue); ok {
		return to.Value.(pflag.SliceValue).Replace(many.GetSlice())
	}
	return to.Value.Set(from.Value.String())
}

// ExpandFiles replaces old by new in the value of every flag that is a file's
// name.
func ExpandFiles(fs *pflag.FlagSet, old, new string) error {
	var err error
	fs.VisitAll(func(f *pflag.Flag) {
		if value := f.Value.String(); err == nil && f.Value.Type() == "string" && f.Annotations[annotationFile] != nil && strings.Contains(value, old) {
			err = f.Value.Set(strings.ReplaceAll(value, old, new))
		}
	})
	return err
}
