// Package inspect checks whether a Redis is suitable for a hub, and reports what to change:
// permissions, version, role, buffer limits, and whether a published message arrives. The command
// usercast check runs it; other programs can run it in their own health checks.
package inspect
