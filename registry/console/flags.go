package console

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// ParseFlags parses args into fs with the rules of NormalizeFlags; fs.Args has
// the rest. Interspersed says whether flags may stand behind arguments. A
// request for help is pflag.ErrHelp; every other error is one of usage, and
// names the flag as it is written here, with one dash. Nothing is printed.
func ParseFlags(fs *pflag.FlagSet, args []string, interspersed bool) error {
	args, err := NormalizeFlags(fs, args, interspersed)
	if err != nil {
		return err
	}
	fs.SetInterspersed(interspersed)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	err = fs.Parse(args)
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return fmt.Errorf("bad value %q of flag -%s: %w", bad.GetValue(), bad.GetFlag().Name, BadValue(bad.GetFlag(), bad.Unwrap()))
	}
	return err
}

// BadValue returns why f does not take a value, in words that do not name the
// value again. err is what it said itself.
func BadValue(f *pflag.Flag, err error) error {
	number, ok := errors.AsType[*strconv.NumError](err)
	switch kind := f.Value.Type(); {
	case kind == "duration":
		return errors.New("should be a time such as 30s, 10m or 2h")
	case !ok:
		return err
	case errors.Is(err, strconv.ErrRange):
		return number.Err
	case kind == "bool":
		return errors.New("should be true or false")
	case strings.HasPrefix(kind, "uint"):
		return errors.New("should be a number such as 3, and none below 0")
	}
	return errors.New("should be a number such as 3")
}

// NormalizeFlags rewrites args so that fs, which knows long flags with two
// dashes only, takes them with one dash as well. The rules, in this order:
//
//   - "--" ends the flags, and so does the first argument unless interspersed;
//   - -name, where name is a long flag, is --name; -help is --help;
//   - a flag that needs a value takes the next word, whatever it looks like;
//   - one letter is a shorthand first, else a long flag of one letter;
//   - several letters are shorthands only if each of them needs no value.
//
// Everything else that begins with a dash is an unknown flag; the error names
// the nearest long one. args is not changed.
//
// So that a word has one meaning, no shorthand of ours takes a value and no
// long flag spells a group of shorthands: see CheckFlags.
func NormalizeFlags(fs *pflag.FlagSet, args []string, interspersed bool) ([]string, error) {
	out := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		word := args[i]
		if word == "--" {
			return append(out, args[i:]...), nil
		}
		if len(word) < 2 || word[0] != '-' {
			if !interspersed {
				return append(out, args[i:]...), nil
			}
			out = append(out, word)
			continue
		}
		word, flag, err := normalizeFlag(fs, word)
		if err != nil {
			return nil, err
		}
		out = append(out, word)
		if flag == nil || flag.NoOptDefVal != "" || strings.Contains(word, "=") {
			continue
		}
		if i++; i == len(args) {
			return nil, fmt.Errorf("flag -%s needs a value", flag.Name)
		}
		out = append(out, args[i])
	}
	return out, nil
}

// normalizeFlag rewrites one word that begins with a dash. The flag is nil for
// a request for help and for a group of shorthands, which take no value.
func normalizeFlag(fs *pflag.FlagSet, word string) (string, *pflag.Flag, error) {
	name, _, valued := strings.Cut(word[1:], "=")
	long, double := strings.CutPrefix(name, "-")
	if flag := fs.Lookup(long); flag != nil && (double || len(long) > 1) {
		return "--" + strings.TrimLeft(word, "-"), flag, nil
	}
	switch {
	case long == "help" && !valued:
		return "--help", nil, nil
	case double:
		return "", nil, unknownFlag(fs, name, long)
	case len(name) == 1:
		if flag := fs.ShorthandLookup(name); flag != nil {
			return word, flag, nil
		}
		if flag := fs.Lookup(name); flag != nil {
			return "-" + word, flag, nil
		}
	}
	if valued || !isGroup(fs, name) {
		return "", nil, unknownFlag(fs, name, long)
	}
	return word, nil, nil
}

// isGroup reports whether each letter of name is a shorthand that needs no
// value; -h asks for help where it is nothing else.
func isGroup(fs *pflag.FlagSet, name string) bool {
	for i := range len(name) {
		flag := fs.ShorthandLookup(name[i : i+1])
		if flag == nil && name[i] != 'h' || flag != nil && flag.NoOptDefVal == "" {
			return false
		}
	}
	return name != ""
}

func unknownFlag(fs *pflag.FlagSet, name, long string) error {
	var names []string
	fs.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return &UnknownFlag{Name: long, text: "-" + name, near: Nearest(long, names)}
}

// UnknownFlag is the error about a flag that there is not.
type UnknownFlag struct {
	Name       string // without dashes
	text, near string
}

func (u *UnknownFlag) Error() string {
	if u.near != "" {
		return fmt.Sprintf("unknown flag %q, the nearest is -%s", u.text, u.near)
	}
	return fmt.Sprintf("unknown flag %q", u.text)
}

// CheckFlags returns an error when fs breaks what NormalizeFlags relies on: a
// shorthand that takes a value, or a long flag whose name is made of
// shorthands. It is meant for tests over a command table.
func CheckFlags(fs *pflag.FlagSet) error {
	var errs []error
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Shorthand != "" && f.NoOptDefVal == "" {
			errs = append(errs, fmt.Errorf("flag -%s: its shorthand -%s takes a value", f.Name, f.Shorthand))
		}
		if isGroup(fs, f.Name) {
			errs = append(errs, fmt.Errorf("flag -%s: its name is made of shorthands", f.Name))
		}
	})
	return errors.Join(errs...)
}

// maxWord bounds the cost of Nearest, which grows with the square of a word.
const maxWord = 64

// Nearest returns the candidate that word was most likely meant to be: the
// first with the fewest letters added, left out, exchanged or swapped with
// their neighbour. It is empty when none is close: one slip for every three
// letters, and at least one, is forgiven.
func Nearest(word string, candidates []string) string {
	if word == "" || len(word) > maxWord {
		return ""
	}
	nearest, best := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if len(c) > maxWord {
			continue
		}
		// Nothing of the word is kept when every letter is a slip.
		if d := distance(word, c); d < best && d < max(len(word), len(c)) {
			nearest, best = c, d
		}
	}
	return nearest
}

// distance counts the slips between a and b (optimal string alignment).
func distance(a, b string) int {
	above, row := make([]int, len(b)+1), make([]int, len(b)+1)
	var twoAbove []int
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		twoAbove, above, row = above, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			slip := 1
			if a[i-1] == b[j-1] {
				slip = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+slip)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], twoAbove[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
