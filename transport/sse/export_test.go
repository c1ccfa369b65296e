package sse

import (
	"net"
)

// NewServerOn is NewServer with an existing listener. The fast path is used only if Listen has created
// the listener.
func NewServerOn(l net.Listener, cfg ServerConfig) (*Server, error) { return newServer(cfg, l) }

// ListenOn returns the listener of a Server for ServerConfig.Listener.
var ListenOn = listenOn

// OpenConns returns how many slots of MaxConns are in use.
func (s *Server) OpenConns() int64 { return s.settings.limiter.used.Load() }

// IsShort reports whether fewer than a tenth of MaxConns are free.
func (s *Server) IsShort() bool { return s.settings.limiter.isShort() }

// Listener returns the listener that net/http uses.
func (s *Server) Listener() net.Listener { return s.listener }

// Rechecks returns the number of pending rechecks.
func (h *Handler) Rechecks() int64 { return h.rechecks.pending.Load() }
