package console

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Complete completes the word that ends at byte pos of line: commands, flags,
// and the names that a flag can take, as far as the caller may see them. It
// returns the line and position after completion, and the candidates where
// there are several. Lines that Split refuses, and words that are written with
// quotes, are left alone.
func Complete(ctx context.Context, s *Session, line string, pos int) (newLine string, newPos int, candidates []string) {
	if pos < 0 || pos > len(line) {
		return line, pos, nil
	}
	before := line[:pos]
	if _, err := Split(before); err != nil {
		return line, pos, nil
	}
	// One letter more tells whether a word ends here or the next one begins.
	words, err := Split(before + "x")
	if err != nil {
		return line, pos, nil
	}
	word := strings.TrimSuffix(words[len(words)-1], "x")
	words = words[:len(words)-1]
	if !strings.HasSuffix(before, word) {
		return line, pos, nil
	}
	prefix, candidates := matches(ctx, s, words, word)
	value := strings.TrimPrefix(word, prefix)
	if len(candidates) == 0 {
		return line, pos, nil
	}
	done := commonPrefix(candidates)
	if len(candidates) == 1 {
		if !strings.HasSuffix(done, "=") && !strings.HasPrefix(line[pos:], " ") {
			done += " "
		}
		candidates = nil
	}
	start := before[:len(before)-len(value)] + done
	return start + line[pos:], len(start), candidates
}

// matches returns what word may become behind words, sorted, without the part of
// word that stays ("-name="), which is prefix.
func matches(ctx context.Context, s *Session, words []string, word string) (prefix string, found []string) {
	prefix, all := candidatesFor(ctx, s, words, word)
	value := strings.TrimPrefix(word, prefix)
	for _, c := range all {
		if strings.HasPrefix(c, value) {
			found = append(found, c)
		}
	}
	slices.Sort(found)
	return prefix, slices.Compact(found)
}

// CompleteName is the hidden command by which other programs ask what Complete
// would offer. Behind "--" it takes the words of the line, the one to complete
// last, and prints the whole words that this one may become.
const CompleteName = "__complete"

type completeOp struct{}

func (*completeOp) Flags(*pflag.FlagSet) {}

func (*completeOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if len(args) == 0 {
		return nil, usage("%s needs a word", CompleteName)
	}
	last := len(args) - 1
	prefix, found := matches(ctx, s, args[:last], args[last])
	for i := range found {
		found[i] = prefix + found[i]
	}
	return newNameList(found), nil
}

// candidatesFor returns what word may become behind words, and the part of
// word that stays ("-name=").
func candidatesFor(ctx context.Context, s *Session, words []string, word string) (prefix string, all []string) {
	if len(words) == 0 {
		return "", names()
	}
	c, ok := Lookup(words[0])
	if !ok {
		return "", nil
	}
	op := c.New()
	fs := c.flagSet(op)
	flag := ""
	if n := len(words); n > 1 {
		if f := valueFlag(fs, words[n-1]); f != nil {
			flag, words = f.Name, words[:n-1]
		}
	}
	// Errors in what stands before do not matter here: the flags that could be
	// read help to narrow the names.
	ParseFlags(fs, words[1:], true)
	adopted(op, fs.Args())
	if flag == "" && (strings.HasPrefix(word, "-") || word == "" && c.Args == "") {
		name, _, valued := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if !valued {
			return "", flagNames(fs)
		}
		flag, prefix = name, word[:strings.IndexByte(word, '=')+1]
	}
	if g, ok := op.(suggester); ok {
		if s.allowed(c, op) != nil {
			return prefix, nil
		}
		all, _ = g.suggest(ctx, s, flag) // without an answer there is nothing to offer
	}
	if flag == "" && word == "" && len(all) == 0 {
		return "", flagNames(fs) // no word has its place here
	}
	return prefix, all
}

func flagNames(fs *pflag.FlagSet) (all []string) {
	fs.VisitAll(func(f *pflag.Flag) { all = append(all, "-"+f.Name) })
	return all
}

// valueFlag returns the flag that word is, if it waits for a value.
func valueFlag(fs *pflag.FlagSet, word string) *pflag.Flag {
	if !strings.HasPrefix(word, "-") || strings.Contains(word, "=") {
		return nil
	}
	if f := fs.Lookup(strings.TrimLeft(word, "-")); f != nil && f.NoOptDefVal == "" {
		return f
	}
	return nil
}

func commonPrefix(words []string) string {
	p := words[0]
	for _, w := range words[1:] {
		for !strings.HasPrefix(w, p) {
			p = p[:len(p)-1]
		}
	}
	return p
}
