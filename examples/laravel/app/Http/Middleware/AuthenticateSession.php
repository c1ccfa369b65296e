<?php
namespace App\Http\Middleware;

class AuthenticateSession extends \Illuminate\Session\Middleware\AuthenticateSession
{
    protected function redirectTo($request)
    {
        return '/';
    }
}
