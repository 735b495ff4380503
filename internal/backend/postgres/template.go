package postgres

import (
	"fmt"
	"strings"
	"text/template/parse"
)

// templates are texts in the language of text/template, as far as the set-up needs it.
// That package itself calls methods by names that stand in templates, for which the
// linker keeps every method of every type: a fifth of the program.
type templates struct {
	trees map[string]*parse.Tree
	funcs map[string]func(any) any
	data  map[string]any
}

// parseTemplates parses the texts, by name. Funcs are all that a text may call.
func parseTemplates(texts map[string]string, funcs map[string]func(any) any) (*templates, error) {
	t := &templates{trees: map[string]*parse.Tree{}, funcs: funcs}
	known := map[string]any{}
	for name := range funcs {
		known[name] = true
	}
	for name, text := range texts {
		trees, err := parse.Parse(name, text, "", "", known)
		if err != nil {
			return nil, err
		}
		for defined, tree := range trees {
			t.trees[defined] = tree
		}
	}
	return t, nil
}

// execute writes the text of a name.
func (t *templates) execute(name string, data map[string]any) (text string, err error) {
	tree := t.trees[name]
	if tree == nil {
		return "", fmt.Errorf("no template %s", name)
	}
	t.data = data
	var out strings.Builder
	err = t.walk(&out, tree.Root, data)
	return out.String(), err
}

func (t *templates) walk(out *strings.Builder, node parse.Node, dot any) error {
	switch n := node.(type) {
	case *parse.TextNode:
		out.Write(n.Text)
	case *parse.ListNode:
		if n == nil {
			return nil // there is no else
		}
		for _, each := range n.Nodes {
			if err := t.walk(out, each, dot); err != nil {
				return err
			}
		}
	case *parse.ActionNode:
		value, err := t.pipe(n.Pipe, dot)
		if err != nil {
			return err
		}
		fmt.Fprint(out, value)
	case *parse.IfNode:
		return t.branch(out, &n.BranchNode, dot)
	case *parse.WithNode:
		return t.branch(out, &n.BranchNode, dot)
	case *parse.TemplateNode:
		called := t.trees[n.Name]
		if called == nil {
			return fmt.Errorf("no template %s", n.Name)
		}
		return t.walk(out, called.Root, dot)
	default:
		return fmt.Errorf("%s is not understood", node)
	}
	return nil
}

func (t *templates) branch(out *strings.Builder, b *parse.BranchNode, dot any) error {
	value, err := t.pipe(b.Pipe, dot)
	if err != nil {
		return err
	}
	switch {
	case value == false || value == "":
		return t.walk(out, b.ElseList, dot)
	case b.NodeType == parse.NodeWith:
		dot = value
	}
	return t.walk(out, b.List, dot)
}

// pipe evaluates what stands in braces or brackets: one value, or a function of one.
func (t *templates) pipe(p *parse.PipeNode, dot any) (any, error) {
	if len(p.Cmds) != 1 || len(p.Decl) > 0 {
		return nil, fmt.Errorf("%s is not understood", p)
	}
	args := p.Cmds[0].Args
	value, err := t.value(args[len(args)-1], dot)
	if err != nil || len(args) == 1 {
		return value, err
	}
	called, ok := args[0].(*parse.IdentifierNode)
	if !ok || len(args) != 2 {
		return nil, fmt.Errorf("%s is not understood", p)
	}
	return t.funcs[called.Ident](value), nil
}

func (t *templates) value(node parse.Node, dot any) (any, error) {
	switch n := node.(type) {
	case *parse.DotNode:
		return dot, nil
	case *parse.FieldNode:
		if value, ok := t.data[n.Ident[0]]; ok && len(n.Ident) == 1 {
			return value, nil
		}
		return nil, fmt.Errorf("there is no %s", n)
	case *parse.PipeNode:
		return t.pipe(n, dot)
	}
	return nil, fmt.Errorf("%s is not understood", node)
}
