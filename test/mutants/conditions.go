package main

import (
	"go/ast"
	"go/token"
)

var turned = map[token.Token]token.Token{
	token.EQL: token.NEQ, token.NEQ: token.EQL,
	token.LSS: token.GEQ, token.GEQ: token.LSS,
	token.GTR: token.LEQ, token.LEQ: token.GTR,
}

var shifted = map[token.Token]token.Token{
	token.LSS: token.LEQ, token.LEQ: token.LSS,
	token.GTR: token.GEQ, token.GEQ: token.GTR,
}

// condition makes false and true of what somebody goes by.
func (m *mutator) condition(e ast.Expr) {
	if e == nil || m.done[ast.Unparen(e)] {
		return
	}
	e = ast.Unparen(e)
	m.done[e] = true
	m.become(e, "false")
	m.become(e, "true")
}

// become makes a constant of a condition. What stood there stays behind it,
// never evaluated, so that its variables are used and the file compiles.
func (m *mutator) become(e ast.Expr, constant string) {
	was := m.of(e)
	if was == constant {
		return
	}
	text := constant
	if was != "false" && was != "true" {
		text = map[string]string{"false": "(false && (", "true": "(true || ("}[constant] + was + "))"
	}
	m.add(e, constant, e.Pos(), e.End(), text)
}

func (m *mutator) expression(e ast.Expr) {
	switch e := e.(type) {
	case *ast.UnaryExpr:
		if e.Op == token.NOT {
			m.condition(e)
			m.done[ast.Unparen(e.X)] = true
		}
	case *ast.BinaryExpr:
		switch {
		case e.Op == token.LAND:
			m.operands(e, "true")
		case e.Op == token.LOR:
			m.operands(e, "false")
		case turned[e.Op] != 0:
			m.compared(e)
		}
	}
}

// operands makes of each what leaves the matter to the other.
func (m *mutator) operands(e *ast.BinaryExpr, constant string) {
	m.condition(e)
	for _, x := range []ast.Expr{e.X, e.Y} {
		if x = ast.Unparen(x); !m.done[x] {
			m.done[x] = true
			m.become(x, constant)
		}
	}
}

func (m *mutator) compared(e *ast.BinaryExpr) {
	m.condition(e)
	for _, ops := range []map[token.Token]token.Token{turned, shifted} {
		if op := ops[e.Op]; op != 0 {
			m.replace(e, e.OpPos, e.OpPos+token.Pos(len(e.Op.String())), op.String())
		}
	}
}

// returned makes false and true of each bool that a function gives back.
func (w within) returned(s *ast.ReturnStmt) {
	if len(s.Results) != len(w.results) {
		return
	}
	for i, e := range s.Results {
		if w.results[i] {
			w.condition(e)
		}
	}
}
