<?php
namespace App\Http\Middleware;

class EncryptCookies extends \Illuminate\Cookie\Middleware\EncryptCookies
{
    protected $except = ['usercast']; // for --auth jwt: the hub reads this cookie itself
}
