<?php
namespace App\Http;

class Kernel extends \Illuminate\Foundation\Http\Kernel
{
    // As in laravel/laravel 8, with AuthenticateSession (which logs other devices out) and without VerifyCsrfToken:
    // page.html is the same in all examples and sends no token. Cookies have SameSite=Lax instead.
    protected $middlewareGroups = ['web' => [
        Middleware\EncryptCookies::class,
        \Illuminate\Cookie\Middleware\AddQueuedCookiesToResponse::class,
        \Illuminate\Session\Middleware\StartSession::class,
        Middleware\AuthenticateSession::class,
        \Illuminate\View\Middleware\ShareErrorsFromSession::class,
        \Illuminate\Routing\Middleware\SubstituteBindings::class,
    ]];
}
