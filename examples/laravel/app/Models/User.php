<?php
namespace App\Models;

// The name is the id, as in the other examples. In your app it is a number.
class User extends \Illuminate\Foundation\Auth\User
{
    public $incrementing = false;
    protected $primaryKey = 'name';
    protected $keyType = 'string';
    protected $fillable = ['name', 'password'];
}
