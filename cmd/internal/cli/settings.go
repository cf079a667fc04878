package cli

import (
	"strings"

	"github.com/spf13/pflag"
)

// Annotations that this package puts on flags.
const (
	annotationEnv  = "cli:env"  // further environment variables
	annotationFile = "cli:file" // the value is a file name
	annotationSet  = "cli:set"  // the value comes from an environment variable
)

// EnvAlias names further environment variables that set the flag, for those
// that users have from before. The variable of the flag's own name goes first.
func EnvAlias(fs *pflag.FlagSet, flag string, names ...string) {
	annotate(fs, flag, annotationEnv, names)
}

// FileFlag says that the flag's value is the name of a file, for completion.
func FileFlag(fs *pflag.FlagSet, flag string) {
	annotate(fs, flag, annotationFile, []string{"true"})
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
// as good as none.
func fromEnv(fs *pflag.FlagSet, prefix string, env func(string) string) error {
	var err error
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Changed || err != nil {
			return
		}
		for _, name := range variables(prefix, f) {
			value := env(name)
			if value == "" {
				continue
			}
			if e := f.Value.Set(value); e != nil {
				err = Usage("environment variable %s: bad value %q: %w", name, value, e)
			}
			f.Changed = true
			annotate(fs, f.Name, annotationSet, []string{name})
			return
		}
	})
	return err
}
