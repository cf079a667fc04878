package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// blocks returns the fenced blocks of a section of a document, up to the next
// heading.
func blocks(doc, heading string) []string {
	_, section, _ := strings.Cut(doc, "\n"+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	section, _, _ = strings.Cut(section, "\n### ")
	var all []string
	for i, part := range strings.Split(section, "```") {
		if i%2 == 1 {
			_, text, _ := strings.Cut(part, "\n") // behind the language
			all = append(all, text)
		}
	}
	return all
}

// outdent takes the indentation of a list off a block.
func outdent(block, indent string) string {
	return strings.ReplaceAll("\n"+block, "\n"+indent, "\n")[1:]
}

// installation returns the blocks of docs/systemd.md about the registry, an agent,
// and several of them. The project lies in dir.
func installation(dir string) ([][]string, error) {
	file := filepath.Join(dir, "docs/systemd.md")
	doc, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all [][]string
	for _, want := range []struct {
		heading string
		blocks  int
	}{{"## The registry", 4}, {"## An agent", 3}, {"### Several configurations on one host", 2}} {
		found := blocks(string(doc), want.heading)
		if len(found) != want.blocks {
			return nil, fmt.Errorf("%s: %d blocks in %q, want %d", file, len(found), want.heading, want.blocks)
		}
		all = append(all, found)
	}
	return all, nil
}
