package cli

import (
	"iter"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"deploytools/registry/console"
)

// Annotations that this package puts on flags.
const (
	annotationEnv   = "cli:env"   // further environment variables
	annotationFile  = "cli:file"  // the value is a file name
	annotationNamed = "cli:named" // Program.Suggest knows the values
	annotationSet   = "cli:set"   // the value comes from an environment variable
	annotationEmpty = "cli:empty" // a variable without a value counts
)

// EnvAlias names further environment variables that set the flag, for those
// that users have from before. The variable of the flag's own name goes first.
func EnvAlias(fs *pflag.FlagSet, flag string, names ...string) {
	annotate(fs, flag, annotationEnv, names)
}

// FileFlag says that the flag's value is the name of a file, for completion; of a
// directory where its usage calls it `directory`.
func FileFlag(fs *pflag.FlagSet, flag string) {
	annotate(fs, flag, annotationFile, []string{"true"})
}

// NamedFlag says that Program.Suggest knows the flag's values, of a command that is
// not Raw too.
func NamedFlag(fs *pflag.FlagSet, flag string) {
	annotate(fs, flag, annotationNamed, []string{"true"})
}

// EmptyFlag says that the empty value of the flag has a meaning of its own, so
// that a variable without a value gives it. Its text should say which.
func EmptyFlag(fs *pflag.FlagSet, flag string) {
	annotate(fs, flag, annotationEmpty, []string{"true"})
}

func annotate(fs *pflag.FlagSet, flag, key string, values []string) {
	if err := fs.SetAnnotation(flag, key, values); err != nil {
		panic("internal error: " + err.Error()) // a flag that the caller has not defined
	}
}

// variables returns the names of the environment variables that set the flag,
// the one that counts most first.
func variables(prefix string, f *pflag.Flag) []string {
	own := prefix + "_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
	return append([]string{own}, f.Annotations[annotationEnv]...)
}

// fromEnv sets each flag that the command line left alone from its environment
// variables: flag, then variable, then default. A variable without a value is
// as good as none, but for an EmptyFlag.
func fromEnv(fs *pflag.FlagSet, prefix string, env func(string) (string, bool)) error {
	var err error
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Changed || err != nil {
			return
		}
		for _, name := range variables(prefix, f) {
			value, set := env(name)
			if !set || value == "" && f.Annotations[annotationEmpty] == nil {
				continue
			}
			if e := f.Value.Set(value); e != nil {
				err = Usage("environment variable %s: bad value %q: %w", name, value, console.BadValue(f, e))
			}
			f.Changed = true
			annotate(fs, f.Name, annotationSet, []string{name})
			return
		}
	})
	return err
}

// UnknownVariables returns what is wrong with each of the names that begins as
// the variables of fs do, and is none of them.
func UnknownVariables(fs *pflag.FlagSet, prefix string, names iter.Seq[string]) []error {
	var known []string
	fs.VisitAll(func(f *pflag.Flag) { known = append(known, variables(prefix, f)...) })
	var errs []error
	for _, name := range slices.Sorted(names) {
		if !strings.HasPrefix(name, prefix+"_") || slices.Contains(known, name) {
			continue
		}
		short := make([]string, len(known)) // what all have in common makes none alike
		for i, k := range known {
			short[i] = strings.TrimPrefix(k, prefix+"_")
		}
		near := console.Nearest(strings.TrimPrefix(name, prefix+"_"), short)
		if near == "" {
			errs = append(errs, Usage("variable %s: there is no such setting", name))
			continue
		}
		errs = append(errs, Usage("variable %s: there is no such setting, the nearest is %s_%s", name, prefix, near))
	}
	return errs
}
