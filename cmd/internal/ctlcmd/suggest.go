package ctlcmd

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"deploytools/cmd/internal/cli"
	"deploytools/registry/client"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// maxWait is how long a person who has pressed a key waits for names.
const maxWait = 300 * time.Millisecond

// suggest returns what the registry's own console would offer for word behind
// words. Whatever goes wrong, and whatever takes longer than maxWait, is no
// names. Nobody is asked for a passphrase.
func (r *remote) suggest(ctx context.Context, o *cli.IO, words []string, word string) []string {
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	c, err := client.New(r.options(o))
	if err != nil {
		return nil
	}
	// Beside us, since not all that a client waits for heeds a context: files,
	// and the SSH agent.
	answer := make(chan []string, 1)
	go func() {
		defer c.Close()
		answer <- ask(ctx, c, slices.Concat([]string{console.CompleteName, "--"}, words, []string{word}))
	}()
	select {
	case names := <-answer:
		return names
	case <-ctx.Done():
		return nil
	}
}

func ask(ctx context.Context, c *client.Client, words []string) []string {
	var stdout reply
	status, err := c.Exec(ctx, console.Join(words), nil, &stdout, io.Discard)
	if err != nil || status != wire.OK {
		return nil
	}
	return slices.DeleteFunc(strings.Split(stdout.String(), "\n"), func(name string) bool { return !plain(name) })
}

// plain reports whether no shell sees more in a word than its letters: scripts
// put it into the command line as it is.
func plain(word string) bool {
	inner := strings.ReplaceAll(word, "~", "") // means something at the beginning only
	return inner != "" && !strings.ContainsRune("~=+%", rune(word[0])) && console.Join([]string{inner}) == inner
}
